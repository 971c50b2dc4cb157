"""Annotators that click like people, through the same functions as the page; truth stays in here."""
