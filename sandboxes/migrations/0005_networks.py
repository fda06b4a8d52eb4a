"""Keep what each sandbox may reach, and which version of it its node obeys."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """The network of a sandbox."""

    dependencies = (
        ("sandboxes", "0004_executions"),
        ("tenants", "0005_network_policies"),
    )

    operations = (
        migrations.AddField(
            model_name="sandbox",
            name="ingress_ports",
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network_acked",
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network_cut",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network_mode",
            field=models.CharField(choices=[("none", "None"), ("open", "By its policy")], default="none", max_length=8),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network_policy",
            field=models.CharField(blank=True, default="", max_length=63),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network_secrets",
            field=models.TextField(blank=True, default=""),
        ),
        migrations.AddField(
            model_name="sandbox",
            name="network_version",
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(
                condition=models.Q(("ended_at", None), ("network_acked__lt", models.F("network_version"))),
                fields=["id"],
                name="sandboxes_sandbox_untold",
            ),
        ),
        migrations.AddIndex(
            model_name="sandbox",
            index=models.Index(
                condition=models.Q(("ended_at", None), ("network_cut", True)),
                fields=["id"],
                name="sandboxes_sandbox_cut",
            ),
        ),
    )
