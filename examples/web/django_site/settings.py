"""The settings of a site with one application, which is this folder. Django's own database is beside the events."""

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "only for the example")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_site.urls"
WSGI_APPLICATION = "django_site.wsgi.application"
INSTALLED_APPS = ["django_site"]
MIDDLEWARE = ["django_site.store.EventsMiddleware"]
DATABASES: dict[str, dict[str, str]] = {}
USE_TZ = True
EVENTS_URL = os.environ["DATABASE_URL"]
