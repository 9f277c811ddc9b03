# One image for the app, for workers and for sweeps; docs/deploy.md says how they go together.
#     docker build -t pgb .                                                       CPU
#     docker build -t pgb:gpu --build-arg TORCH_INDEX=https://pypi.org/simple .   CUDA
FROM python:3.12-slim

# where pip looks for torch beside PyPI: its builds for the CPU are a tenth as large
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# a user of its own; all that is written goes to /data
RUN useradd --uid 10001 --create-home pgb && install --directory --owner=pgb --group=pgb /data
WORKDIR /app

# before the code, so that a change of the code installs nothing anew; Authlib is for st.login
COPY requirements.txt .
RUN pip install --extra-index-url "$TORCH_INDEX" -r requirements.txt "Authlib>=1.3.2,<2"

COPY .streamlit/config.toml .streamlit/
COPY app.py ./
COPY pages/ pages/
COPY ui/ ui/
COPY pgb_core/ pgb_core/

USER pgb
ENV PGB_RUNS_DIR=/data/runs PGB_MODELS_DIR=/data/models PGB_DATA_DIR=/data/data PGB_CACHE_DIR=/data/cache
VOLUME /data
EXPOSE 8501

HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["python", "-m", "streamlit", "run", "app.py", "--server.address=0.0.0.0", "--server.port=8501", "--server.showEmailPrompt=false"]
