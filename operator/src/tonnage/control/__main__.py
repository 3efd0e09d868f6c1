"""`python -m tonnage.control`: run the operator."""

from tonnage.control.main import main

if __name__ == "__main__":
    main()
