"""Timescale, batch, loss and compression laws, as pure functions with source and range."""

from planner.laws.batch import BatchTradeOff, batch_trade_off
from planner.laws.catalog import load_laws, published
from planner.laws.compression import (
    Compression,
    at_extra_compute,
    at_params_ratio,
    at_tpp,
    trade_off,
)
from planner.laws.law import Law
from planner.laws.loss import LossPrediction, optimal_params, optimal_tpp, predict_loss
from planner.laws.timescale import timescale, weight_decay_for

__all__ = [
    "BatchTradeOff",
    "Compression",
    "Law",
    "LossPrediction",
    "at_extra_compute",
    "at_params_ratio",
    "at_tpp",
    "batch_trade_off",
    "load_laws",
    "optimal_params",
    "optimal_tpp",
    "predict_loss",
    "published",
    "timescale",
    "trade_off",
    "weight_decay_for",
]
