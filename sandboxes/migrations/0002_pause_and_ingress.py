# ruff: noqa: RUF012  (generated)

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("sandboxes", "0001_initial"),
        ("tenants", "0002_parked_reservations"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="sandbox",
            name="sandboxes_sandbox_state",
        ),
        migrations.RemoveIndex(
            model_name="sandbox",
            name="sandboxes_sandbox_list",
        ),
        migrations.AddField(
            model_name="sandbox",
            name="allow_public_traffic",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="auto_pause",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="auto_resume",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="https_ports",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="mask_request_host",
            field=models.CharField(blank=True, default="", max_length=255),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="paused_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="resumed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="runtime",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AddField(
            model_name="template",
            name="runtime",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AlterField(
            model_name="sandbox",
            name="state",
            field=models.CharField(
                choices=[
                    ("starting", "Starting"),
                    ("running", "Running"),
                    ("pausing", "Pausing"),
                    ("paused", "Paused"),
                    ("resuming", "Resuming"),
                    ("ending", "Ending"),
                    ("ended", "Ended"),
                ],
                default="starting",
                max_length=16,
            ),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(
                condition=models.Q(("ended_at", None)),
                fields=["tenant", "-started_at", "id", "state"],
                name="sandboxes_sandbox_live",
            ),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(fields=["tenant", "-started_at", "id", "state"], name="sandboxes_sandbox_page"),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(fields=["-started_at", "id"], name="sandboxes_sandbox_all"),
        ),
        migrations.AddConstraint(
            model_name="sandbox",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("state__in", ["starting", "running", "pausing", "paused", "resuming", "ending", "ended"])
                ),
                name="sandboxes_sandbox_state",
            ),
        ),
    ]
