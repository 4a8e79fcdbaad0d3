"""How well a recipe's judge agrees with people on pairs that they labelled, and with itself."""
