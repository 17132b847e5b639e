"""Files of a case: members, parsing, and how what is wrong with one is said."""
