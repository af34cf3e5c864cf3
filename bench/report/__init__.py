"""The benchmark's output: tables on the terminal, a Markdown document, plots."""
