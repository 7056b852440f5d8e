"""How `main.py` and `preprocess.py` end."""

EXIT_OK = 0
EXIT_USER_ERROR = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 75
