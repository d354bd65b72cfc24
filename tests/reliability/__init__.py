"""`make reliability`: what is done to tumorseg on purpose, as a table of rows with seeds and counts."""
