"""Pages that join several apps: the way in, the overview, the developer docs, and the frame around all pages."""
