"""Chains, checkpoints, retention, risk levels, verdicts and webhooks; what an event says more."""

from __future__ import annotations

import django.core.serializers.json
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import corekit.ids


class Migration(migrations.Migration):
    dependencies = (("audit", "0002_operations"),)

    operations = (
        migrations.CreateModel(
            name="AnchorPosition",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("checkpoint_id", models.BigIntegerField(default=0)),
                ("delivered_at", models.DateTimeField(null=True)),
                ("error", models.CharField(blank=True, default="", max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name="ArgumentCopy",
            fields=[
                ("event_id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField(db_index=True)),
                ("key_id", models.CharField(max_length=16)),
                ("ciphertext", models.BinaryField()),
                ("expires_at", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Chain",
            fields=[
                ("name", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("size", models.BigIntegerField(default=0)),
                ("head", models.CharField(blank=True, default="", max_length=64)),
                ("frontier", models.JSONField(default=list)),
                ("sealed_at", models.DateTimeField(null=True)),
                ("checkpoint_size", models.BigIntegerField(default=0)),
                ("checkpoint_at", models.DateTimeField(null=True)),
                ("verified_size", models.BigIntegerField(default=0)),
                ("verified_at", models.DateTimeField(null=True)),
                ("verified_as", models.CharField(blank=True, default="", max_length=16)),
            ],
        ),
        migrations.CreateModel(
            name="Checkpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("chain", models.CharField(max_length=32)),
                ("size", models.BigIntegerField()),
                ("root", models.CharField(max_length=64)),
                ("note", models.TextField()),
                ("key_id", models.CharField(max_length=16)),
                ("leaves", models.BinaryField()),
                ("at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Delivery",
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
                ("event_id", models.CharField(max_length=32)),
                ("code", models.CharField(max_length=64)),
                ("test", models.BooleanField(default=False)),
                (
                    "state",
                    models.CharField(
                        choices=[("waiting", "Waiting"), ("delivered", "Delivered"), ("failed", "Given up")],
                        default="waiting",
                        max_length=16,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("status", models.PositiveSmallIntegerField(null=True)),
                ("error", models.CharField(blank=True, default="", max_length=500)),
                ("duration_ms", models.FloatField(null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ("-created_at", "-id"),
            },
        ),
        migrations.CreateModel(
            name="LedgerPolicy",
            fields=[
                ("tenant_id", models.UUIDField(primary_key=True, serialize=False)),
                ("retention_days", models.PositiveIntegerField(default=400)),
                ("denied_retention_days", models.PositiveIntegerField(default=800)),
                ("legal_hold", models.BooleanField(default=False)),
                ("hold_note", models.CharField(blank=True, default="", max_length=500)),
                ("keep_arguments", models.BooleanField(default=False)),
                ("arguments_days", models.PositiveIntegerField(default=14)),
            ],
        ),
        migrations.CreateModel(
            name="Producer",
            fields=[
                ("id", models.CharField(max_length=80, primary_key=True, serialize=False)),
                ("last_seq", models.BigIntegerField(default=0)),
                ("heard_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("silent_since", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="PruneRange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("chain", models.CharField(max_length=32)),
                ("first", models.BigIntegerField()),
                ("last", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="PruneRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("chain", models.CharField(max_length=32)),
                ("note", models.TextField()),
                ("key_id", models.CharField(max_length=16)),
                ("events", models.BigIntegerField()),
                ("at", models.DateTimeField()),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="RiskLevel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=16)),
                ("subject_id", models.CharField(max_length=64)),
                ("tenant_id", models.UUIDField(null=True)),
                ("score", models.FloatField(default=0)),
                ("peak", models.PositiveSmallIntegerField(default=0)),
                ("rules", models.JSONField(default=list)),
                ("updated_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="RiskPolicy",
            fields=[
                ("tenant_id", models.UUIDField(primary_key=True, serialize=False)),
                ("flag_at", models.PositiveSmallIntegerField(default=75, null=True)),
                ("pause_at", models.PositiveSmallIntegerField(default=None, null=True)),
                ("refuse_at", models.PositiveSmallIntegerField(default=None, null=True)),
                ("unassessable_tier", models.CharField(default="L2", max_length=2)),
            ],
        ),
        migrations.CreateModel(
            name="RiskSuppression",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tenant_id", models.UUIDField(db_index=True)),
                ("rule", models.CharField(max_length=64)),
                ("note", models.CharField(max_length=500)),
                ("until", models.DateTimeField()),
                ("created_by", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="Seal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("chain", models.CharField(max_length=32)),
                ("seq", models.BigIntegerField()),
                ("event_id", models.CharField(max_length=32, unique=True)),
                ("hash", models.CharField(max_length=64)),
            ],
        ),
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                ("id", models.CharField(max_length=16, primary_key=True, serialize=False)),
                ("public_key", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Unsealed",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.CharField(max_length=32)),
            ],
        ),
        migrations.CreateModel(
            name="Verdict",
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
                ("tenant_id", models.UUIDField()),
                ("event_id", models.CharField(max_length=32)),
                ("sandbox_id", models.CharField(blank=True, default="", max_length=64)),
                ("generation", models.PositiveIntegerField(null=True)),
                ("action", models.CharField(choices=[("flag", "Flag"), ("pause", "Pause the sandbox")], max_length=8)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("done", "Carried out"),
                            ("failed", "Not possible"),
                            ("overridden", "Overridden"),
                        ],
                        default="pending",
                        max_length=16,
                    ),
                ),
                ("score", models.PositiveSmallIntegerField()),
                ("threshold", models.PositiveSmallIntegerField()),
                ("reasons", models.JSONField(default=list)),
                ("note", models.CharField(blank=True, default="", max_length=1000)),
                ("decided_by", models.CharField(blank=True, default="", max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("decided_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ("-created_at", "-id"),
            },
        ),
        migrations.CreateModel(
            name="Webhook",
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
                ("url", models.CharField(max_length=2000)),
                ("description", models.CharField(blank=True, default="", max_length=200)),
                ("codes", models.JSONField(default=list)),
                ("min_score", models.PositiveSmallIntegerField(null=True)),
                ("secret", models.CharField(max_length=400)),
                ("previous_secret", models.CharField(blank=True, default="", max_length=400)),
                ("previous_until", models.DateTimeField(null=True)),
                ("enabled", models.BooleanField(default=True)),
                ("disabled_reason", models.CharField(blank=True, default="", max_length=200)),
                ("failing_since", models.DateTimeField(null=True)),
                ("position", models.BigIntegerField(default=0)),
                ("created_by", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": ("-created_at", "-id"),
            },
        ),
        migrations.AddField(
            model_name="event",
            name="actor_auth",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AddField(
            model_name="event",
            name="args_key_id",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AddField(
            model_name="event",
            name="args_size",
            field=models.PositiveBigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="event",
            name="context",
            field=models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
        ),
        migrations.AddField(
            model_name="event",
            name="decision",
            field=models.CharField(
                blank=True, choices=[("allow", "Allowed"), ("deny", "Denied")], default="", max_length=8
            ),
        ),
        migrations.AddField(
            model_name="event",
            name="host",
            field=models.CharField(blank=True, default="", max_length=255),
        ),
        migrations.AddField(
            model_name="event",
            name="object_name",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AddField(
            model_name="event",
            name="on_behalf_of",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddField(
            model_name="event",
            name="policy_version",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddField(
            model_name="event",
            name="producer",
            field=models.CharField(blank=True, default="", max_length=80),
        ),
        migrations.AddField(
            model_name="event",
            name="producer_seq",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="event",
            name="reason",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AddField(
            model_name="event",
            name="received_at",
            field=models.DateTimeField(default=django.utils.timezone.now),
        ),
        migrations.AddField(
            model_name="event",
            name="risk_band",
            field=models.CharField(
                blank=True,
                choices=[("low", "Low"), ("medium", "Medium"), ("high", "High"), ("critical", "Critical")],
                default="",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="event",
            name="risk_findings",
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name="event",
            name="risk_ruleset",
            field=models.CharField(blank=True, default="", max_length=40),
        ),
        migrations.AddField(
            model_name="event",
            name="risk_seed",
            field=models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
        ),
        migrations.AddField(
            model_name="event",
            name="risk_tier",
            field=models.CharField(blank=True, default="", max_length=2),
        ),
        migrations.AddField(
            model_name="event",
            name="run_id",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddField(
            model_name="event",
            name="sandbox_id",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddField(
            model_name="event",
            name="span_id",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AddField(
            model_name="event",
            name="status",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="event",
            name="tier",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AddField(
            model_name="event",
            name="token_id",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddField(
            model_name="event",
            name="trace_id",
            field=models.CharField(blank=True, default="", max_length=32),
        ),
        migrations.AddField(
            model_name="event",
            name="user_agent",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("sandbox_id", ""), _negated=True),
                fields=["sandbox_id", "-at", "-id"],
                name="audit_event_sandbox",
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("risk_score__gte", 50)),
                fields=["tenant_id", "-at", "-id"],
                name="audit_event_risky",
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("decision", "deny")), fields=["tenant_id", "-at", "-id"], name="audit_event_denied"
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("host", ""), _negated=True), fields=["host", "-at", "-id"], name="audit_event_host"
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("token_id", ""), _negated=True),
                fields=["token_id", "-at", "-id"],
                name="audit_event_token",
            ),
        ),
        migrations.AddConstraint(
            model_name="checkpoint",
            constraint=models.UniqueConstraint(fields=("chain", "size"), name="audit_checkpoint_once"),
        ),
        migrations.AddField(
            model_name="prunerange",
            name="record",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="ranges", to="audit.prunerecord"
            ),
        ),
        migrations.AddIndex(
            model_name="risklevel",
            index=models.Index(fields=["tenant_id", "kind", "-score"], name="audit_risklevel_top"),
        ),
        migrations.AddConstraint(
            model_name="risklevel",
            constraint=models.UniqueConstraint(fields=("kind", "subject_id"), name="audit_risklevel_once"),
        ),
        migrations.AddConstraint(
            model_name="seal",
            constraint=models.UniqueConstraint(fields=("chain", "seq"), name="audit_seal_gapless"),
        ),
        migrations.AddIndex(
            model_name="verdict",
            index=models.Index(
                condition=models.Q(("state", "pending")), fields=["created_at"], name="audit_verdict_pending"
            ),
        ),
        migrations.AddIndex(
            model_name="verdict",
            index=models.Index(fields=["tenant_id", "-created_at", "-id"], name="audit_verdict_page"),
        ),
        migrations.AddIndex(
            model_name="verdict",
            index=models.Index(fields=["event_id"], name="audit_verdict_event"),
        ),
        migrations.AddConstraint(
            model_name="verdict",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["pending", "done", "failed", "overridden"])),
                name="audit_verdict_state",
            ),
        ),
        migrations.AddConstraint(
            model_name="verdict",
            constraint=models.UniqueConstraint(fields=("event_id", "action"), name="audit_verdict_once"),
        ),
        migrations.AddIndex(
            model_name="webhook",
            index=models.Index(fields=["tenant_id", "-created_at", "-id"], name="audit_webhook_page"),
        ),
        migrations.AddField(
            model_name="delivery",
            name="webhook",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="deliveries", to="audit.webhook"
            ),
        ),
        migrations.AddIndex(
            model_name="prunerange",
            index=models.Index(fields=["chain", "first", "last"], name="audit_prunerange_find"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(condition=models.Q(("state", "waiting")), fields=["next_at"], name="audit_delivery_due"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["webhook", "-created_at", "-id"], name="audit_delivery_page"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(
                condition=models.Q(("test", False)), fields=("webhook", "event_id"), name="audit_delivery_once"
            ),
        ),
    )
