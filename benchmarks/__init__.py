"""Speed and memory, side by side with other implementations; results in README.md beside this file."""
