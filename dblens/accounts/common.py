"""Words that a common password is made of, in small letters: what is left once digits and signs around it are taken off."""

BASES = frozenset(
    """
    abc abcd abcde abcdef abcdefg abcdefgh abcdefghijkl access account admin administrator adminadmin alexander amanda america
    andrea andrew angel angels anthony apple asdf asdfasdf asdfgh asdfghjk asdfghjkl ashley asshole austin babygirl bailey
    banana barcelona baseball basketball batman bismillah blink brandon buster butterfly changeit changeme changemenow
    changethis charlie cheese chelsea chocolate computer consumer cookie correcthorse correcthorsebattery
    correcthorsebatterystaple dallas daniel database dblens default demo dragon dragonball elizabeth estrella eminem
    facebook family fender football forever freedom friends fuckyou genesis george ginger google guest hannah harley hello
    hellohello helloworld hunter iamgod iloveyou internet jasmine jennifer jessica jesus jordan joshua jupyter jupyterhub
    justin killer letmein letmeinnow liverpool loveme lovely london maggie manager manchester mariadb master matrix matthew
    maverick melissa merlin michael michelle microsoft minecraft mongodb monkey monkeymonkey monster mustang mynoob mysql
    mypassword naruto nicole ninja nothing oracle pass passcode passpass passphrase passw password passwordpassword passwort
    patrick pepper phoenix pokemon postgres postgresql princess purple pussy qazwsx qazwsxedc qqww qwer qwerasdf qwert
    qwerty qwertyqwerty qwertyu qwertyui qwertyuiop qwertz qwertzui qwertzuiop rainbow rangers redis restore robert rootroot
    root samantha samsung scooter secret secretsecret server service shadow silver slipknot soccer solo spiderman sqlite
    starwars startrek starwarsstarwars summer sunshine superman superuser support sysadmin taylor temporary temppass test
    tester testing testtest thisispassword thomas thunder tigger toor trustno tweety unknown user username vagrant victoria
    welcome welcomehome whatever whatever william winner winter wordpass xxxxxxxx yellow zaq zaqwsx zaqxsw zxcv zxcvbn
    zxcvbnm
    1q2w3e4r 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx 1qaz2wsx3edc 1qazxsw2 q1w2e3r4 q1w2e3r4t5 q1w2e3r4t5y6 zaq12wsx a1b2c3d4 abc123
    qwe123 qwerty123 123qwe 123abc asd123 p455w0rd
    12345678 123456789 1234567890 12345678910 123456789012 0123456789 012345678901 123123123123 123412341234 123456123456
    1234512345 123454321 098765432109 0987654321 987654321 987654321098 112233445566 11223344 102030405060 1357924680
    246813579 314159265358 3141592653589793
    """.split()  # noqa: SIM905  (a list would be one a line)
)
