"""A table of Django's own, written in the transaction of an append."""

from django.db import models


class Note(models.Model):
    order_id = models.UUIDField(primary_key=True)
    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text
