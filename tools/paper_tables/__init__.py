"""The paper's experiments: which runs make up a table, and their results."""
