"""The settings of a site with one application, which is this folder. Its tables and the events are in one database."""

import os

from sqlalchemy.engine import make_url

SECRET_KEY = os.environ.get("SECRET_KEY", "only for the example")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_site.urls"
WSGI_APPLICATION = "django_site.wsgi.application"
INSTALLED_APPS = ["django_site"]
MIDDLEWARE = ["django_site.store.EventsMiddleware"]
USE_TZ = True
EVENTS_URL = os.environ["DATABASE_URL"]

_url = make_url(EVENTS_URL)
_is_sqlite = _url.get_backend_name() == "sqlite"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3" if _is_sqlite else "django.db.backends.postgresql",
        "NAME": _url.database,
        "USER": _url.username or "",
        "PASSWORD": _url.password or "",
        "HOST": _url.host or _url.query.get("host", ""),
        "PORT": str(_url.port or ""),
        "CONN_MAX_AGE": 60,
        # SQLite: how long a transaction of Django waits for another writer.
        "OPTIONS": {"timeout": 30} if _is_sqlite else {},
    }
}
