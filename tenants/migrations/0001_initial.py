# ruff: noqa: E501, RUF012  (generated)

import uuid

import django.contrib.auth.models
import django.contrib.auth.validators
import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import corekit.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=corekit.ids.new_key_id,
                        editable=False,
                        max_length=16,
                        primary_key=True,
                        serialize=False,
                        verbose_name="key id",
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("hash", models.CharField(editable=False, max_length=64, unique=True)),
                ("prefix", models.CharField(editable=False, max_length=12)),
                ("scopes", models.JSONField(default=list)),
                ("created_by", models.CharField(blank=True, default="", max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                "verbose_name": "API key",
                "ordering": ("-created_at", "id"),
            },
        ),
        migrations.CreateModel(
            name="Tenant",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                (
                    "slug",
                    models.CharField(
                        max_length=63,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "\\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\\Z", "Use a-z, 0-9 and dashes inside."
                            )
                        ],
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("active", "Active"), ("suspended", "Suspended")], default="active", max_length=16
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ("slug",),
            },
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("owner", "Owner"),
                            ("admin", "Admin"),
                            ("developer", "Developer"),
                            ("viewer", "Viewer"),
                        ],
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
        ),
        migrations.CreateModel(
            name="Reservation",
            fields=[
                ("sandbox_id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("sandboxes", models.PositiveIntegerField()),
                ("cpu_milli", models.PositiveBigIntegerField()),
                ("memory_mib", models.PositiveBigIntegerField()),
                ("disk_mib", models.PositiveBigIntegerField()),
                ("request_cpu_milli", models.PositiveBigIntegerField(default=0)),
                ("request_memory_mib", models.PositiveBigIntegerField(default=0)),
                (
                    "state",
                    models.CharField(
                        choices=[("reserved", "Reserved"), ("committed", "Committed")],
                        default="reserved",
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": ("created_at", "sandbox_id"),
            },
        ),
        migrations.CreateModel(
            name="User",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("password", models.CharField(max_length=128, verbose_name="password")),
                ("last_login", models.DateTimeField(blank=True, null=True, verbose_name="last login")),
                (
                    "is_superuser",
                    models.BooleanField(
                        default=False,
                        help_text="Designates that this user has all permissions without explicitly assigning them.",
                        verbose_name="superuser status",
                    ),
                ),
                (
                    "username",
                    models.CharField(
                        error_messages={"unique": "A user with that username already exists."},
                        help_text="Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only.",
                        max_length=150,
                        unique=True,
                        validators=[django.contrib.auth.validators.UnicodeUsernameValidator()],
                        verbose_name="username",
                    ),
                ),
                ("first_name", models.CharField(blank=True, max_length=150, verbose_name="first name")),
                ("last_name", models.CharField(blank=True, max_length=150, verbose_name="last name")),
                ("email", models.EmailField(blank=True, max_length=254, verbose_name="email address")),
                (
                    "is_staff",
                    models.BooleanField(
                        default=False,
                        help_text="Designates whether the user can log into this admin site.",
                        verbose_name="staff status",
                    ),
                ),
                (
                    "is_active",
                    models.BooleanField(
                        default=True,
                        help_text="Designates whether this user should be treated as active. Unselect this instead of deleting accounts.",
                        verbose_name="active",
                    ),
                ),
                ("date_joined", models.DateTimeField(default=django.utils.timezone.now, verbose_name="date joined")),
                (
                    "groups",
                    models.ManyToManyField(
                        blank=True,
                        help_text="The groups this user belongs to. A user will get all permissions granted to each of their groups.",
                        related_name="user_set",
                        related_query_name="user",
                        to="auth.group",
                        verbose_name="groups",
                    ),
                ),
                (
                    "user_permissions",
                    models.ManyToManyField(
                        blank=True,
                        help_text="Specific permissions for this user.",
                        related_name="user_set",
                        related_query_name="user",
                        to="auth.permission",
                        verbose_name="user permissions",
                    ),
                ),
            ],
            options={
                "verbose_name": "user",
                "verbose_name_plural": "users",
                "abstract": False,
            },
            managers=[
                ("objects", django.contrib.auth.models.UserManager()),
            ],
        ),
        migrations.CreateModel(
            name="LimitRange",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="limit_range",
                        serialize=False,
                        to="tenants.tenant",
                    ),
                ),
                ("default_cpu_milli", models.PositiveIntegerField(default=500)),
                ("default_memory_mib", models.PositiveIntegerField(default=512)),
                ("default_disk_mib", models.PositiveIntegerField(default=1024)),
                ("default_request_cpu_milli", models.PositiveIntegerField(default=100)),
                ("default_request_memory_mib", models.PositiveIntegerField(default=128)),
                ("min_cpu_milli", models.PositiveIntegerField(default=50)),
                ("min_memory_mib", models.PositiveIntegerField(default=64)),
                ("min_disk_mib", models.PositiveIntegerField(default=64)),
                ("max_cpu_milli", models.PositiveIntegerField(default=2000)),
                ("max_memory_mib", models.PositiveIntegerField(default=2048)),
                ("max_disk_mib", models.PositiveIntegerField(default=10240)),
            ],
        ),
        migrations.CreateModel(
            name="Quota",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="quota",
                        serialize=False,
                        to="tenants.tenant",
                    ),
                ),
                ("max_sandboxes", models.PositiveIntegerField(default=50)),
                ("max_cpu_milli", models.PositiveBigIntegerField(default=20000)),
                ("max_memory_mib", models.PositiveBigIntegerField(default=40960)),
                ("max_disk_mib", models.PositiveBigIntegerField(default=102400)),
                ("max_request_cpu_milli", models.PositiveBigIntegerField(default=10000)),
                ("max_request_memory_mib", models.PositiveBigIntegerField(default=20480)),
                (
                    "max_lifetime_s",
                    models.PositiveIntegerField(
                        default=86400, validators=[django.core.validators.MinValueValidator(1)]
                    ),
                ),
                (
                    "creates_per_minute",
                    models.PositiveIntegerField(
                        default=600,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000000),
                        ],
                    ),
                ),
                ("used_sandboxes", models.PositiveIntegerField(default=0, editable=False)),
                ("used_cpu_milli", models.PositiveBigIntegerField(default=0, editable=False)),
                ("used_memory_mib", models.PositiveBigIntegerField(default=0, editable=False)),
                ("used_disk_mib", models.PositiveBigIntegerField(default=0, editable=False)),
                ("used_request_cpu_milli", models.PositiveBigIntegerField(default=0, editable=False)),
                ("used_request_memory_mib", models.PositiveBigIntegerField(default=0, editable=False)),
                ("next_create_us", models.BigIntegerField(default=0, editable=False)),
            ],
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["active", "suspended"])), name="tenants_tenant_state"
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="api_keys", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="memberships", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="memberships", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="reservation",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="reservations", to="tenants.tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="limitrange",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("min_cpu_milli__gte", 1),
                    ("min_cpu_milli__lte", models.F("default_cpu_milli")),
                    ("default_cpu_milli__lte", models.F("max_cpu_milli")),
                ),
                name="tenants_limitrange_cpu_milli",
                violation_error_message="min_, default_ and max_cpu_milli must be 1 or more, in this order.",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitrange",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("min_memory_mib__gte", 1),
                    ("min_memory_mib__lte", models.F("default_memory_mib")),
                    ("default_memory_mib__lte", models.F("max_memory_mib")),
                ),
                name="tenants_limitrange_memory_mib",
                violation_error_message="min_, default_ and max_memory_mib must be 1 or more, in this order.",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitrange",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("min_disk_mib__gte", 1),
                    ("min_disk_mib__lte", models.F("default_disk_mib")),
                    ("default_disk_mib__lte", models.F("max_disk_mib")),
                ),
                name="tenants_limitrange_disk_mib",
                violation_error_message="min_, default_ and max_disk_mib must be 1 or more, in this order.",
            ),
        ),
        migrations.AddConstraint(
            model_name="quota",
            constraint=models.CheckConstraint(
                condition=models.Q(("creates_per_minute__gte", 1), ("max_lifetime_s__gte", 1)),
                name="tenants_quota_rates_positive",
                violation_error_message="creates_per_minute and max_lifetime_s must be 1 or more.",
            ),
        ),
        migrations.AddConstraint(
            model_name="quota",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("used_sandboxes__gte", 0),
                    ("used_cpu_milli__gte", 0),
                    ("used_memory_mib__gte", 0),
                    ("used_disk_mib__gte", 0),
                    ("used_request_cpu_milli__gte", 0),
                    ("used_request_memory_mib__gte", 0),
                ),
                name="tenants_quota_used_not_negative",
            ),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["tenant", "-created_at"], name="tenants_apikey_list"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(fields=("tenant", "user"), name="tenants_membership_once"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.CheckConstraint(
                condition=models.Q(("role__in", ["owner", "admin", "developer", "viewer"])),
                name="tenants_membership_role",
            ),
        ),
        migrations.AddIndex(
            model_name="reservation",
            index=models.Index(fields=["tenant", "created_at"], name="tenants_reservation_list"),
        ),
        migrations.AddConstraint(
            model_name="reservation",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["reserved", "committed"])), name="tenants_reservation_state"
            ),
        ),
    ]
