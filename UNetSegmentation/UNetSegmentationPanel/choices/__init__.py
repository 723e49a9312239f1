"""Choices offered to the user, and their wording."""
