"""The administration of Django, with the second factor of django-otp: a real application with a login of two factors.

python -m tests.logins.django_site DATABASE    prints its address, and serves until standard input ends
"""

from __future__ import annotations

import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path

USER, PASSWORD = "alice", "right"
SECRET = b"12345678901234567890"
"""Of her one-time codes."""
urlpatterns: list[object] = []


class Server(ThreadingMixIn, WSGIServer):
    """Serves each request in a thread: a browser keeps connections open."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Writes no log."""

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def configure(database: str) -> None:
    """Set Django up, with one account."""
    contrib = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
    processors = [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]  # fmt: skip
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[*contrib, "django_otp", "django_otp.plugins.otp_totp"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django_otp.middleware.OTPMiddleware",
        ],
        ROOT_URLCONF="tests.logins.django_site",
        SECRET_KEY="a key of a test",
        STATIC_URL="static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": processors},
            }
        ],
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django_otp.admin import OTPAdminSite
    from django_otp.plugins.otp_totp.models import TOTPDevice

    user = User.objects.create_superuser(USER, password=PASSWORD)
    TOTPDevice.objects.create(user=user, name="phone", key=SECRET.hex())
    urlpatterns.append(path("admin/", OTPAdminSite().urls))


def main() -> None:
    """Serve."""
    sys.modules["tests.logins.django_site"] = sys.modules[
        __name__
    ]  # Django imports the module with the addresses by name
    configure(sys.argv[1])
    with make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
