"""For a WSGI server: `DATABASE_URL=... gunicorn --workers 4 --threads 4 django_site.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")
application = get_wsgi_application()
