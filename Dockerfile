# All frameworks, for CPUs:
#
#     docker build --tag paripassu .
#     docker run --rm --volume "$PWD/runs:/home/runs" paripassu compare --quick --out runs/quick
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

WORKDIR /opt/paripassu
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --constraint constraints.txt '.[all]'

# What it writes is the user's: give --user "$(id -u):$(id -g)" for files of your own.
ENV HOME=/tmp
WORKDIR /home
ENTRYPOINT ["paripassu"]
CMD ["--help"]
