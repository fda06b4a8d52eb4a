# ruff: noqa: RUF012  (generated)

import django.db.models.deletion
from django.db import migrations, models

import corekit.clock
import corekit.ids
import sandboxes.models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Node",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("boot_id", models.CharField(blank=True, max_length=64)),
                ("version", models.CharField(blank=True, max_length=64)),
                ("capabilities", models.JSONField(blank=True, default=dict)),
                ("events_upto", models.BigIntegerField(default=0)),
                ("revocations_upto", models.DateTimeField(default=corekit.clock.now)),
                ("first_seen_at", models.DateTimeField(default=corekit.clock.now)),
                ("last_seen_at", models.DateTimeField(db_index=True, default=corekit.clock.now)),
            ],
        ),
        migrations.CreateModel(
            name="Template",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=sandboxes.models.new_template_id, max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=128)),
                ("build_id", models.CharField(max_length=64)),
                ("tier", models.CharField(default="container", max_length=16)),
                ("profile", models.CharField(default="workstation", max_length=16)),
                ("cpu_milli", models.PositiveIntegerField(blank=True, null=True)),
                ("memory_mib", models.PositiveIntegerField(blank=True, null=True)),
                ("disk_mib", models.PositiveIntegerField(blank=True, null=True)),
                ("pids", models.PositiveIntegerField(default=256)),
                ("created_at", models.DateTimeField(default=corekit.clock.now)),
                ("updated_at", models.DateTimeField(default=corekit.clock.now)),
                (
                    "tenant",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Sandbox",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=corekit.ids.new_sandbox_id, max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("template_name", models.CharField(max_length=128)),
                ("build_id", models.CharField(max_length=64)),
                ("generation", models.PositiveIntegerField(default=1)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("starting", "Starting"),
                            ("running", "Running"),
                            ("ending", "Ending"),
                            ("ended", "Ended"),
                        ],
                        default="starting",
                        max_length=16,
                    ),
                ),
                ("tier", models.CharField(max_length=16)),
                ("profile", models.CharField(max_length=16)),
                ("cpu_milli", models.PositiveIntegerField()),
                ("memory_mib", models.PositiveIntegerField()),
                ("disk_mib", models.PositiveIntegerField()),
                ("pids", models.PositiveIntegerField()),
                ("metadata", models.JSONField(blank=True, default=dict)),
                ("metadata_terms", models.TextField(blank=True, default="")),
                ("allow_internet_access", models.BooleanField(blank=True, null=True)),
                ("timeout_s", models.PositiveBigIntegerField()),
                ("created_by", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(default=corekit.clock.now)),
                ("started_at", models.DateTimeField(default=corekit.clock.now)),
                ("end_at", models.DateTimeField(blank=True, null=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "end_reason",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("killed", "Killed by request"),
                            ("expired", "Its time was over"),
                            ("out_of_memory", "Out of memory"),
                            ("guest_exited", "Its first process ended"),
                            ("host_rebooted", "The host was restarted"),
                            ("start_failed", "It did not start"),
                            ("lost", "The node lost it"),
                            ("quarantined", "It did not match its isolation tier"),
                        ],
                        default="",
                        max_length=32,
                    ),
                ),
                ("idempotency_key", models.CharField(blank=True, max_length=255, null=True)),
                ("request_digest", models.CharField(blank=True, default="", max_length=64)),
                (
                    "node",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="sandboxes.node",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.tenant"
                    ),
                ),
                (
                    "template",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="sandboxes.template",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "sandboxes",
            },
        ),
        migrations.AddConstraint(
            model_name="template",
            constraint=models.UniqueConstraint(
                condition=models.Q(("tenant", None)), fields=("name",), name="sandboxes_template_public_name"
            ),
        ),
        migrations.AddConstraint(
            model_name="template",
            constraint=models.UniqueConstraint(
                condition=models.Q(("tenant__isnull", False)),
                fields=("tenant", "name"),
                name="sandboxes_template_tenant_name",
            ),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(fields=["tenant", "state", "-started_at", "id"], name="sandboxes_sandbox_list"),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(fields=["state", "node"], name="sandboxes_sandbox_node"),
        ),
        migrations.AddConstraint(
            model_name="sandbox",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["starting", "running", "ending", "ended"])),
                name="sandboxes_sandbox_state",
            ),
        ),
        migrations.AddConstraint(
            model_name="sandbox",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("ended_at__isnull", False), ("state", "ended")),
                    models.Q(models.Q(("state", "ended"), _negated=True), ("ended_at", None)),
                    _connector="OR",
                ),
                name="sandboxes_sandbox_ended_has_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="sandbox",
            constraint=models.UniqueConstraint(
                fields=("tenant", "idempotency_key"), name="sandboxes_sandbox_idempotency"
            ),
        ),
    ]
