"""The thin Celery app: a message wakes a worker up, the jobs table says what to do (DESIGN section 5)."""
