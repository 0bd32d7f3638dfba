"""The settings pages of a workspace, and the page that an invitation's link opens."""
