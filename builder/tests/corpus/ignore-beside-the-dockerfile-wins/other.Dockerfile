FROM scratch
COPY . /o
