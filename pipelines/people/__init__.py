"""`oatflow label`: people answer the questions of a round, from files or in a browser."""
