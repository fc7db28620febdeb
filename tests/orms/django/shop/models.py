# As the last migration leaves it.
from django.db import models


class Customer(models.Model):
    id = models.CharField(primary_key=True, max_length=26)
    name = models.CharField(max_length=200)


class Order(models.Model):
    id = models.CharField(primary_key=True, max_length=26)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    remark = models.TextField(null=True)
    total = models.DecimalField(max_digits=12, decimal_places=2)
