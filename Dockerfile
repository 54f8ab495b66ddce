# CPU only; the steps are README's. docker build --tag trained-binarization . && docker run trained-binarization
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /project
COPY . .
RUN make environment
CMD ["make", "reproduce"]
