"""The command line `igcnn`. Modules here import NumPy and the rest only inside commands."""
