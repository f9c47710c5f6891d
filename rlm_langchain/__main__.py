"""`python -m rlm_langchain` is `rlm`."""

from rlm_langchain.cli import main

if __name__ == "__main__":
    main()
