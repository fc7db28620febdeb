# The smallest Django project with a database: the file that APP_DB names.
import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["APP_DB"],
        "OPTIONS": {"timeout": 20},
    }
}
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "not a secret: nothing here is signed"
USE_TZ = True
