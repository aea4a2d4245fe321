"""The connections of one database: sources, lanes, transactions, and how other writers' commits are noticed."""
