# ruff: noqa: RUF012  (generated)

import django.core.serializers.json
import django.utils.timezone
from django.db import migrations, models

import corekit.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=corekit.ids.new_event_id,
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant_id", models.UUIDField(null=True)),
                ("code", models.CharField(max_length=64)),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "phase",
                    models.CharField(
                        choices=[("intent", "Before the act"), ("result", "After the act"), ("fact", "Observed")],
                        default="fact",
                        max_length=8,
                    ),
                ),
                ("ref", models.CharField(blank=True, default="", max_length=32, verbose_name="intent")),
                ("actor_kind", models.CharField(max_length=16)),
                ("actor_id", models.CharField(max_length=64)),
                ("actor_name", models.CharField(max_length=200)),
                ("origin", models.GenericIPAddressField(null=True)),
                ("request_id", models.CharField(blank=True, default="", max_length=64)),
                ("object_type", models.CharField(max_length=32)),
                ("object_id", models.CharField(max_length=128)),
                ("generation", models.PositiveIntegerField(null=True)),
                ("node_id", models.CharField(blank=True, default="", max_length=64)),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[("ok", "Done"), ("error", "Failed"), ("refused", "Refused")],
                        default="ok",
                        max_length=8,
                    ),
                ),
                ("tool_name", models.CharField(blank=True, default="", max_length=64)),
                ("args_hash", models.CharField(blank=True, default="", max_length=64)),
                ("args_shape", models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ("risk_score", models.PositiveSmallIntegerField(null=True)),
                ("risk_reasons", models.JSONField(default=list)),
                ("duration_ms", models.FloatField(null=True)),
                ("details", models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
            ],
            options={
                "ordering": ("-at", "-id"),
                "indexes": [
                    models.Index(fields=["tenant_id", "-at", "-id"], name="audit_event_tenant_page"),
                    models.Index(fields=["-at", "-id"], name="audit_event_page"),
                    models.Index(fields=["object_id", "-at", "-id"], name="audit_event_object_page"),
                    models.Index(fields=["code", "-at", "-id"], name="audit_event_code_page"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("risk_score__isnull", True), ("risk_score__lte", 100), _connector="OR"),
                        name="audit_event_risk_0_to_100",
                    )
                ],
            },
        ),
    ]
