from flask import Flask, request

app = Flask(__name__)


@app.route("/")
def hello():
    return f"hello from flask {request.args.get('name')}\n"
