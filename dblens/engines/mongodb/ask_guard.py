"""What may be sent to the server: lists of what is allowed, walked to any depth, over the command as it will be sent.

MongoDB has no read-only transaction: besides a login that may only read, these lists are what keeps a reader from writing. A stage or an
operator that is not on them is refused, so a new one of the server writes nothing before somebody looked at it. JavaScript ($where,
$function, $accumulator, code as a value, mapReduce) is refused for everybody unless the session was made with `javascript`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bson import Code

from dblens.engines.mongodb.shell_values import Given
from dblens.errors import InvalidInput, PermissionDenied

JAVASCRIPT: Final = frozenset({"$where", "$function", "$accumulator"})
STAGES: Final = frozenset(
    {
        "$addFields", "$bucket", "$bucketAuto", "$collStats", "$count", "$densify", "$documents", "$facet", "$fill", "$geoNear", "$graphLookup",
        "$group", "$indexStats", "$limit", "$lookup", "$match", "$project", "$redact", "$replaceRoot", "$replaceWith", "$sample", "$search",
        "$searchMeta", "$set", "$setWindowFields", "$skip", "$sort", "$sortByCount", "$unionWith", "$unset", "$unwind", "$vectorSearch",
    }
)  # fmt: skip
_QUERY: Final = frozenset(
    {
        "$all", "$and", "$bitsAllClear", "$bitsAllSet", "$bitsAnyClear", "$bitsAnySet", "$box", "$caseSensitive", "$center", "$centerSphere",
        "$comment", "$diacriticSensitive", "$elemMatch", "$eq", "$exists", "$expr", "$geoIntersects", "$geoWithin", "$geometry", "$gt", "$gte",
        "$in", "$jsonSchema", "$language", "$lt", "$lte", "$maxDistance", "$meta", "$minDistance", "$mod", "$natural", "$ne", "$near",
        "$nearSphere", "$nin", "$nor", "$not", "$options", "$or", "$polygon", "$rand", "$regex", "$sampleRate", "$search", "$size", "$slice",
        "$text", "$type", "$uniqueDocs",
    }
)  # fmt: skip
_EXPRESSIONS: Final = frozenset(
    {
        "$abs", "$acos", "$acosh", "$add", "$addToSet", "$allElementsTrue", "$anyElementTrue", "$arrayElemAt", "$arrayToObject", "$asin", "$asinh",
        "$atan", "$atan2", "$atanh", "$avg", "$binarySize", "$bitAnd", "$bitNot", "$bitOr", "$bitXor", "$bottom", "$bottomN", "$bsonSize",
        "$ceil", "$cmp", "$concat", "$concatArrays", "$cond", "$convert", "$cos", "$cosh", "$count", "$covariancePop", "$covarianceSamp",
        "$dateAdd", "$dateDiff", "$dateFromParts", "$dateFromString", "$dateSubtract", "$dateToParts", "$dateToString", "$dateTrunc",
        "$dayOfMonth", "$dayOfWeek", "$dayOfYear", "$degreesToRadians", "$denseRank", "$derivative", "$divide", "$documentNumber", "$exp",
        "$expMovingAvg", "$filter", "$first", "$firstN", "$floor", "$getField", "$hour", "$ifNull", "$indexOfArray", "$indexOfBytes",
        "$indexOfCP", "$integral", "$isArray", "$isNumber", "$isoDayOfWeek", "$isoWeek", "$isoWeekYear", "$last", "$lastN", "$let",
        "$linearFill", "$literal", "$ln", "$locf", "$log", "$log10", "$ltrim", "$map", "$max", "$maxN", "$median", "$mergeObjects",
        "$millisecond", "$min", "$minMaxScaler", "$minN", "$minute", "$month", "$multiply", "$objectToArray", "$percentile", "$pow", "$push",
        "$radiansToDegrees", "$range", "$rank", "$reduce", "$regexFind", "$regexFindAll", "$regexMatch", "$replaceAll", "$replaceOne",
        "$reverseArray", "$round", "$rtrim", "$second", "$setDifference", "$setEquals", "$setField", "$setIntersection", "$setIsSubset",
        "$setUnion", "$shift", "$sigmoid", "$sin", "$sinh", "$sortArray", "$split", "$sqrt", "$stdDevPop", "$stdDevSamp", "$strLenBytes",
        "$strLenCP", "$strcasecmp", "$substr", "$substrBytes", "$substrCP", "$subtract", "$sum", "$switch", "$tan", "$tanh", "$toBool",
        "$toDate", "$toDecimal", "$toDouble", "$toHashedIndexKey", "$toInt", "$toLong", "$toLower", "$toObjectId", "$toString", "$toUUID",
        "$toUpper", "$top", "$topN", "$trim", "$trunc", "$tsIncrement", "$tsSecond", "$unsetField", "$week", "$year", "$zip",
    }
)  # fmt: skip
_REFERENCES: Final = frozenset({"$ref", "$id", "$db"})
READS: Final = STAGES | _QUERY | _EXPRESSIONS | _REFERENCES
UPDATES: Final = frozenset(
    {
        "$bit", "$currentDate", "$each", "$inc", "$mul", "$pop", "$position", "$pull", "$pullAll", "$rename", "$setOnInsert", "$sort",
        "$slice",
    }
)  # fmt: skip
WRITE_STAGES: Final = frozenset({"$out", "$merge"})
_DEEPEST: Final = 200


_ELSEWHERE: Final = frozenset({"$out", "$merge", "$lookup", "$graphLookup", "$unionWith"})


def check(command: Mapping[str, Any], *, read_only: bool, javascript: bool = False, database: str = "") -> None:
    """Refuse a command that holds what its kind may not, or that leaves its database. Raises PermissionDenied."""
    _walk(command, read_only, javascript, 0)
    _pipelines(command, read_only, database)


def _walk(value: Any, read_only: bool, javascript: bool, depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidInput(f"a command nested more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key.startswith("$"):
                _operator(key, read_only, javascript)
            _walk(inner, read_only, javascript, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _walk(inner, read_only, javascript, depth + 1)
    elif isinstance(value, Code) and not javascript:
        raise no_javascript("code as a value")


def _operator(key: str, read_only: bool, javascript: bool) -> None:
    if key in JAVASCRIPT:
        if not javascript:
            raise no_javascript(key)
    elif read_only and key not in READS:
        why = "writes" if key in WRITE_STAGES | UPDATES else "is not on the list of what only reads"
        raise PermissionDenied(
            f"{key[:60]} {why}, and this statement may only read", hint="run it as a write, where you may"
        )


def no_javascript(what: str) -> PermissionDenied:
    """Return the refusal of JavaScript."""
    return PermissionDenied(
        f"{what} runs JavaScript on the server, which is not allowed here",
        hint="write it with aggregation operators, in $expr",
    )


def _pipelines(command: Mapping[str, Any], read_only: bool, database: str) -> None:
    """Refuse stages that are on no list: what is an operator somewhere is not yet a stage."""
    steps = command.get("pipeline")
    if isinstance(steps, list):
        pipeline(steps, read_only=read_only, database=database)
    inner = command.get("explain")
    if isinstance(inner, Mapping):
        _pipelines(inner, read_only, database)


def pipeline(steps: list[Any], *, read_only: bool, database: str = "") -> None:
    """Check the stages of a pipeline and of those within it. Raises InvalidInput, PermissionDenied."""
    allowed = STAGES if read_only else STAGES | WRITE_STAGES
    for step in steps:
        if not isinstance(step, Mapping) or len(step) != 1:
            raise InvalidInput("a stage of a pipeline is a document with one key", hint="such as {$match: {…}}")
        stage, inner = next(iter(step.items()))
        if stage not in allowed:
            raise PermissionDenied(
                f"the stage {stage[:60]!r} is not on the list of what {'only reads' if read_only else 'may be run'}",
                hint=f"one of {', '.join(sorted(allowed))}",
            )
        if stage in _ELSEWHERE:
            _stays(stage, inner, database)
        if isinstance(inner, Mapping):
            nested = inner.values() if stage == "$facet" else [inner.get("pipeline")]
            for each in nested:
                if isinstance(each, list):
                    pipeline(each, read_only=read_only, database=database)


def _stays(stage: str, inner: Any, database: str) -> None:
    """Refuse a stage that names another database: a connection is one."""
    places = [inner, *(inner.get(key) for key in ("into", "from"))] if isinstance(inner, Mapping) else []
    for place in places:
        if isinstance(place, Mapping) and "db" in place and place["db"] != database:
            raise PermissionDenied(
                f"{stage} leaves the database of this connection", hint="use the other database's connection"
            )


# ---------------------------------------------------------------------------------------------------- parameters in their places

_FILTERS: Final = frozenset({"$match", "restrictSearchWithMatch", "partialFilterExpression"})


def settled(value: Any, *, expression: bool) -> Any:
    """Return a value with its parameters in their places.

    Within an aggregation expression text that begins with `$` would be a field's path or a variable: there it becomes a `$literal`.
    """
    if isinstance(value, Given):
        found = value.value
        return {"$literal": found} if expression and _dollar(found) else found
    if isinstance(value, dict):
        made = {}
        for key, inner in value.items():
            if key == "$literal" and isinstance(inner, Given):
                made[key] = inner.value
            elif key == "$expr":
                made[key] = settled(inner, expression=True)
            elif key in _FILTERS or (key == "query" and expression and "near" in value):
                made[key] = settled(inner, expression=False)
            else:
                made[key] = settled(inner, expression=expression)
        return made
    if isinstance(value, list):
        return [settled(each, expression=expression) for each in value]
    return value


def _dollar(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith("$")
    if isinstance(value, dict):
        return any(_dollar(each) for each in value.values())
    return isinstance(value, list) and any(_dollar(each) for each in value)
