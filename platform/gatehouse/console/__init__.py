"""The console's shell: who looks at a page, navigation, signing in, template tags, pages that belong to no app."""
