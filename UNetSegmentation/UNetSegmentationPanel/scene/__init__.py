"""The scene: conversion between nodes and arrays."""
