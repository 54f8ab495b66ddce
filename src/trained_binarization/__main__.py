"""`python -m trained_binarization`."""

from trained_binarization.cli import main

main()
