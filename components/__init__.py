"""The rooms of oatflow: each does one thing of a round of online alignment."""
