from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_add_and_alter")]
    operations = [
        migrations.RenameField(model_name="order", old_name="note", new_name="remark"),
    ]
