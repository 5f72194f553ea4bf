"""The REST API: every operation of the table as a route. `create_app(house)` is the ASGI application."""
