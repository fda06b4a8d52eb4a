"""Django's settings. They only compose: what is read from the environment is read in `env` and `installation`.

Importing them needs no home and makes no file.
"""

from __future__ import annotations

import os
from pathlib import Path

from corekit import __version__
from gatehouse import env as read
from gatehouse.installation import installation
from gatehouse.queues import celery_settings

VERSION = __version__
BASE_DIR = Path(__file__).resolve().parents[2]

GATEHOUSE = installation(os.environ, BASE_DIR)
if GATEHOUSE.service == "web":
    # What web starts has no use for the key that opens all secrets.
    os.environ.pop("GATEHOUSE_VAULT_KEY", None)
REDIS_URL = read.redis(os.environ)

DEBUG = read.boolean(os.environ, "GATEHOUSE_DEBUG")
SECRET_KEY = GATEHOUSE.secret_key()
ALLOWED_HOSTS = [*GATEHOUSE.allowed_hosts(), *read.names(os.environ, "GATEHOUSE_ALLOWED_HOSTS")]

INSTALLED_APPS = [
    "gatehouse",
    "gatehouse.console",
    "sandboxes",
    "tenants",
    "audit",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "allauth",
    "gatehouse.console.apps.AccountsConfig",
    "django_cotton",
    "django_tables2",
    "django_filters",
    "crispy_forms",
    "crispy_bootstrap5",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "gatehouse.middleware.RequestContext",
    "gatehouse.middleware.SecurityHeaders",
    "gatehouse.middleware.CrossOrigin",
    "gatehouse.middleware.JsonErrors",
    "gatehouse.middleware.ConsoleOnly",
]
CONSOLE_MIDDLEWARE = [
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "gatehouse.console.middleware.Viewers",
]
# The admin looks for them in MIDDLEWARE; `ConsoleOnly` runs them for its paths.
SILENCED_SYSTEM_CHECKS = ["admin.E408", "admin.E409", "admin.E410"]
CONSOLE_PREFIXES = ("/accounts/", "/admin/", "/api/docs", "/operator/", "/static/", "/t/")

ROOT_URLCONF = "gatehouse.urls"
ASGI_APPLICATION = "gatehouse.asgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "gatehouse.console.context.shell",
            ],
        },
    },
]

DATABASES = {
    "default": read.postgres(os.environ, role=GATEHOUSE.database_role) or read.sqlite(GATEHOUSE.database_file),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}
# A consumer waits five seconds at a time for its messages; a socket that gives up as early would end it.
_LAYER_HOST = {"address": REDIS_URL, "socket_timeout": 30}
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [_LAYER_HOST]}}
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}
CELERY = celery_settings(REDIS_URL, GATEHOUSE.broker)

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/"
# Operators make accounts; nobody signs up, and names are what people sign in with.
ACCOUNT_ADAPTER = "gatehouse.console.accounts.Adapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = LOGIN_URL
CSRF_FAILURE_VIEW = "gatehouse.console.views.csrf_failure"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["gatehouse.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["gatehouse.api.parsers.StrictJsonParser"],
    "EXCEPTION_HANDLER": "gatehouse.api.exceptions.handle",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
# Of `/api/v1`; everything else speaks the E2B protocol, which knows keys only.
API_AUTHENTICATION = [
    "gatehouse.api.authentication.ApiKeyAuthentication",
    "gatehouse.api.authentication.OperatorSession",
]
API_EXCEPTION_HANDLER = "gatehouse.api.problems.handle"
SPECTACULAR_SETTINGS = {
    "TITLE": "Gatehouse",
    "DESCRIPTION": "Sandboxes for agents: tenants, keys, quotas, sandboxes, nodes, operations and the audit.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_PUBLIC": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "PREPROCESSING_HOOKS": ["gatehouse.api.schema.only_rest"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "gatehouse.api.schema.document_problems",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": False, "validatorUrl": None},
}
API_MAX_BODY_BYTES = 4 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = API_MAX_BODY_BYTES

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
# A vendored file's folder names its version: what a browser has of it stays right for ever.
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/static/vendor/[^/]+-\d+(\.\d+)+/"

COTTON_DIR = "components"
CRISPY_ALLOWED_TEMPLATE_PACKS = "bootstrap5"
CRISPY_TEMPLATE_PACK = "bootstrap5"

# Cookies belong to the console. Over plain HTTP a Secure cookie would never come back.
_HTTPS = GATEHOUSE.public_url.startswith("https://")
SESSION_COOKIE_SECURE = _HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = "__Host-session" if _HTTPS else "session"
CSRF_COOKIE_SECURE = _HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = "__Host-csrf" if _HTTPS else "csrf"
# TLS ends before the gateway, so that web itself sees plain HTTP.
CSRF_TRUSTED_ORIGINS = [GATEHOUSE.public_url] if _HTTPS else []
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _HTTPS else None

API_SECURITY_POLICY = {"default-src": "'none'", "frame-ancestors": "'none'"}
CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}

LOGGING_CONFIG = "gatehouse.logs.configure"
LOGGING = {"service": GATEHOUSE.service, "level": GATEHOUSE.log_level}
