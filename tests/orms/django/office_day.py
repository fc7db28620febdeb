# What an office does in a day, by Django's own models. Arguments: what, and whose day it is.
import sys

import django
from django.db import transaction

django.setup()

from django.contrib.admin.models import ADDITION, CHANGE, LogEntry  # noqa: E402
from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.contenttypes.models import ContentType  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402


def log(user, flag, message):
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(User),
        object_id=str(user.pk),
        object_repr=str(user),
        action_flag=flag,
        change_message=message,
    )


def hire(name):
    group = Group.objects.create(name=f"friends of {name}")
    group.permissions.set(Permission.objects.filter(codename__startswith="view_"))
    user = User.objects.create_user(name, f"{name}@example.org", last_name="Ünïcödé")
    user.groups.add(group)
    user.user_permissions.add(Permission.objects.get(codename="add_user"))
    log(user, ADDITION, [{"added": {}}])
    session = SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session.create()


def promote(name):
    user = User.objects.get(username=name)
    user.is_staff = True
    user.save()
    log(user, CHANGE, [{"changed": {"fields": ["Staff status"]}}])


def dismiss(name):
    User.objects.get(username=name).delete()
    Group.objects.get(name=f"friends of {name}").delete()


with transaction.atomic():
    globals()[sys.argv[1]](sys.argv[2])
