# What makemigrations writes for a new field and a wider one. On SQLite both make the table anew.
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField(
            model_name="order",
            name="state",
            field=models.CharField(default="new", max_length=20),
        ),
        migrations.AlterField(
            model_name="customer",
            name="name",
            field=models.CharField(max_length=200),
        ),
    ]
