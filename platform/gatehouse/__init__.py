"""The Django project: it joins the apps. It may import everything; no app imports it."""
