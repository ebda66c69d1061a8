"""Notifications about nights: an issue on GitHub for each regression."""
