# One image for web, workers, tick and migrate. docs/deploying.md says how it is used and what was tried.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
# The page is built here too; the build hook fetches its own Node.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
# Where torch comes from. Empty: pip's default, which on Linux x86-64 holds CUDA and is large; for the small CPU build
# give the package index that torch's web site names.
ARG TORCH_INDEX_URL=
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' /tmp/constraints.txt)" \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/*.whl)[s3]" \
    && rm -r /wheels /tmp/constraints.txt
RUN groupadd --gid 10001 maskloop \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/maskloop --create-home maskloop \
    && chmod 700 /var/lib/maskloop
USER 10001:10001
WORKDIR /var/lib/maskloop
ENV HOME=/var/lib/maskloop MASKLOOP_HOME=/var/lib/maskloop PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Files are for their owner only, whoever starts the process.
ENTRYPOINT ["sh", "-c", "umask 077; exec \"$@\"", "--"]
CMD ["python", "-m", "annotator_ui"]
EXPOSE 8765
