from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("shop", "0003_rename")]
    operations = [
        migrations.RemoveField(model_name="order", name="state"),
    ]
