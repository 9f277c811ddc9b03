"""Plotly figures of results: pure functions, no Streamlit, each at most a megabyte of JSON."""
