"""How `main.py` and `preprocess.py` end."""

EXIT_OK = 0
EXIT_USER_ERROR = 2
EXIT_FAILED = 3
EXIT_NO_SPACE = 74  # of a job; main.py starts no more and ends with EXIT_USER_ERROR
EXIT_INTERRUPTED = 75
