"""The command line: parses, calls a workflow, prints. Nothing heavy is imported before a command runs."""
